"""The parameters of every pass of Olive, of all its releases together, by name and kind.

One text per pass, so that only those of a pass that somebody asks for are taken apart: ``name:kind``, with ``|``
between kinds; ``+name`` stands for a group. Gathered from the releases 0.1.0 to 0.13.0 of Olive, and from
configurations published since.
"""

from __future__ import annotations

GROUPS: dict[str, str] = {
    "external": (
        "save_as_external_data:bool all_tensors_to_one_file:bool external_data_name:str size_threshold:int "
        "convert_attribute:bool"
    ),
    "loader": "data_dir:object|str dataloader_func:str dataloader_func_kwargs:object batch_size:int",
    "script": "user_script:str script_dir:str",
}
"""Parameters that go together: how an ONNX file is stored, where calibration data come from. Every pass has ``script``:
up to 0.6.2 each one could name a file with functions."""

PARAMETERS: dict[str, str] = {
    "AddOliveMetadata": "+external add_optimization_info:bool custom_metadata:object graph_name:str",
    "AimetQuantization": (
        "+external activation_type:str calibration_providers:list config_file:str data_config:data "
        "op_types_to_exclude:list precision:str quant_scheme:str techniques:list tensor_precision_overrides:object "
        "tie_kv_cache_io:bool"
    ),
    "AitkPython": (
        "activation_type:str dataset_name:str enable_npu_ws:bool length:int model_precision:str precision:str "
        "split:str static_shape:bool weight_format:str"
    ),
    "AppendPrePostProcessingOps": (
        "+external data_config:data post:list pre:list target_opset:int tool_command:str tool_command_args:list|object"
    ),
    "AutoAWQQuantizer": (
        "bits:int|str data_config:data duo_scaling:bool export_compatible:bool input_model_dtype:str "
        "modules_to_not_convert:list pack_model_for_onnx_conversion:bool q_group_size:int version:str w_bit:int "
        "zero_point:bool"
    ),
    "AutoClip": (
        "bits:int|str data_config:data embeds:bool group_size:int lm_head:bool max_shrink:float n_grid:int "
        "n_sample_token:int overrides:object sym:bool"
    ),
    "CaptureLayerAnnotations": "layer_annotations:object",
    "CaptureSplitInfo": (
        "block_to_split:list|str cost_model:str exclude_embeds:bool exclude_lm_head:bool num_splits:int "
        "unique_embeds_lm_head_splits:bool"
    ),
    "ComposeOnnxModels": "+external",
    "DeviceSpecificOnnxConversion": "+external target_opset:int use_dynamo_exporter:bool",
    "DoRA": (
        "allow_tf32:bool alpha:float device_map:str ephemeral_gpu_offload:bool eval_data_config:data "
        "lora_dropout:float modules_to_save:any r:int target_modules:list torch_dtype:str train_data_config:data "
        "training_args:object"
    ),
    "DynamicToFixedShape": "+external dim_param:list dim_value:list input_name:list input_shape:list",
    "EPContextBinaryGenerator": (
        "disable_cpu_fallback:bool embed_context:bool provider_options:object session_options:object "
        "weight_sharing:bool"
    ),
    "ExtractAdapters": (
        "+external adapter_type:str dynamic_lora_r:bool make_inputs:bool optional_inputs:bool pack_inputs:bool "
        "save_format:str"
    ),
    "GenAIModelExporter": "precision:str",
    "Gptq": (
        "bits:int|str damp_percent:float data_config:data desc_act:bool embeds:bool group_size:int lm_head:bool "
        "overrides:object sym:bool"
    ),
    "GptqModel": (
        "bits:int|str damp_auto_increment:float damp_percent:float data_config:data desc_act:bool device:str "
        "dynamic:object group_size:int lm_head:bool mse:float rotation:str static_groups:bool sym:bool "
        "true_sequential:bool"
    ),
    "GptqQuantizer": (
        "+loader bits:int|str damp_percent:float data_config:data desc_act:bool group_size:int "
        "inside_layer_modules:list layers_block_name:str nsamples:int outside_layer_modules:list seed:int "
        "static_groups:bool sym:bool true_sequential:bool"
    ),
    "GraphSurgeries": "+external remove_duplicate_initializers:bool surgeries:list",
    "IncDynamicQuantization": (
        "+external approach:str backend:str data_config:data device:str domain:str excluded_precisions:list "
        "max_trials:int metric:object objective:str op_type_dict:object quant_level:str recipes:object "
        "reduce_range:bool strategy:str strategy_kwargs:object timeout:int tuning_criterion:object "
        "use_distributed_tuning:bool weight_only_config:object workspace:str"
    ),
    "IncQuantization": (
        "+external +loader algorithm:str approach:str backend:str bits:int|str calibration_sampling_size:int|list "
        "data_config:data device:str domain:str excluded_precisions:list group_size:int max_trials:int metric:object "
        "objective:str op_type_dict:object quant_format:str quant_level:str recipes:object reduce_range:bool "
        "scheme:str strategy:str strategy_kwargs:object timeout:int tuning_criterion:object "
        "use_distributed_tuning:bool weight_only_config:object workspace:str"
    ),
    "IncStaticQuantization": (
        "+external +loader algorithm:str approach:str backend:str bits:int|str calibration_sampling_size:int|list "
        "data_config:data device:str diagnosis:bool domain:str excluded_precisions:list group_size:int max_trials:int "
        "metric:object objective:str op_type_dict:object quant_format:str quant_level:str recipes:object "
        "reduce_range:bool scheme:str strategy:str strategy_kwargs:object timeout:int tuning_criterion:object "
        "use_distributed_tuning:bool weight_only_config:object workspace:str"
    ),
    "InputNCHWtoNHWC": "input_names:list",
    "InsertBeamSearch": (
        "+external data_config:data fp16:bool no_repeat_ngram_size:int use_forced_decoder_ids:bool use_gpu:bool "
        "use_logits_processor:bool use_prefix_vocab_mask:bool use_temperature:bool use_vocab_mask:bool"
    ),
    "KQuant": "bits:int|str embeds:bool group_size:int lm_head:bool overrides:object sym:bool",
    "LlamaPyTorchTensorParallel": "world_size:int",
    "LoftQ": (
        "allow_tf32:bool alpha:float bias:str compute_dtype:str device_map:str ephemeral_gpu_offload:bool "
        "eval_data_config:data eval_dataset_size:float loftq_iter:int lora_alpha:float lora_dropout:float lora_r:int "
        "modules_to_save:any ortmodule_onnx_opset_version:int r:int save_quant_config:bool target_modules:list "
        "torch_dtype:str train_data_config:data training_args:object use_ort_trainer:bool"
    ),
    "LoHa": (
        "allow_tf32:bool alpha:float alpha_pattern:object device_map:str ephemeral_gpu_offload:bool "
        "eval_data_config:data exclude_modules:list|str init_weights:bool layers_pattern:list "
        "layers_to_transform:list lora_dropout:float module_dropout:float modules_to_save:any r:int "
        "rank_dropout:float rank_pattern:object target_modules:list torch_dtype:str train_data_config:data "
        "training_args:object use_effective_conv2d:bool"
    ),
    "LoKr": (
        "allow_tf32:bool alpha:float alpha_pattern:object decompose_both:bool decompose_factor:int device_map:str "
        "ephemeral_gpu_offload:bool eval_data_config:data exclude_modules:list|str init_weights:bool "
        "layers_pattern:list layers_to_transform:list lora_dropout:float module_dropout:float modules_to_save:any "
        "r:int rank_dropout:float rank_dropout_scale:bool rank_pattern:object target_modules:list torch_dtype:str "
        "train_data_config:data training_args:object use_effective_conv2d:bool"
    ),
    "LoRA": (
        "allow_tf32:bool alpha:float bias:str device_map:str ephemeral_gpu_offload:bool eval_data_config:data "
        "eval_dataset_size:float lora_alpha:float lora_dropout:float lora_r:int modules_to_save:any "
        "ortmodule_onnx_opset_version:int r:int target_modules:list torch_dtype:str train_data_config:data "
        "training_args:object use_ort_trainer:bool"
    ),
    "MatMulNBitsToQDQ": (
        "+external add_zero_point:bool nodes_to_exclude:list use_int4:bool use_signed_int:bool use_transpose_op:bool"
    ),
    "MergeAdapterWeights": "",
    "MixedPrecisionOverrides": "+external element_wise_binary_ops:list overrides_config:object|str",
    "MobiusBuilder": "components_to_export:list precision:str runtime:str",
    "ModelBuilder": (
        "enable_cuda_graph:bool exclude_embeds:bool exclude_lm_head:bool extra_options:object "
        "include_hidden_states:bool int4_accuracy_level:int|str int4_algo_config:str int4_block_size:int "
        "int4_is_symmetric:bool int4_nodes_to_exclude:list int4_op_types_to_quantize:list metadata_only:bool "
        "precision:str search:object use_8bits_moe:bool use_cuda_bf16:bool use_qdq:bool use_webgpu_fp32:bool"
    ),
    "MoEExpertsDistributor": "+external parallel_jobs:int world_size:int",
    "NVModelOptGraphSurgery": "surgery_params:object surgery_type:str",
    "NVModelOptQuantization": (
        "+loader algorithm:str calib_size:int calibration:str calibration_method:str calibration_params:data "
        "calibration_providers:list data_config:data enable_mixed_quant:bool int4_block_size:int layers_8bit:str "
        "nodes_to_exclude:list precision:str random_calib_data:bool tokenizer_dir:str trust_remote_code:bool "
        "use_random_calibration_data:bool"
    ),
    "OnnxBlockWiseRtnQuantization": (
        "+external accuracy_level:int|str axis:int bits:int block_size:int is_symmetric:bool nodes_to_exclude:list "
        "nodes_to_include:list"
    ),
    "OnnxBnb4Quantization": "+external nodes_to_exclude:list precision:str quant_type:str quantized_modules:list",
    "OnnxConversion": (
        "+external data_config:data device:str dynamic:bool dynamic_axes:object input_names:list input_shapes:list "
        "input_tensor_func:str input_types:list merge_adapter_weights:bool merge_components:bool optimize:bool "
        "output_names:list parallel_jobs:int past_key_value_name:str save_metadata_for_token_generation:bool "
        "target_opset:int torch_dtype:str use_device:str use_dynamo_exporter:bool"
    ),
    "OnnxDiscrepancyCheck": (
        "genai_model_path:str generate_max_new_tokens:int generate_prompt:str max_elements_above_0_01:int "
        "max_elements_above_0_1:int max_mae:float min_longest_common_tokens:int reference_model_path:str"
    ),
    "OnnxDynamicQuantization": (
        "+external ActivationSymmetric:bool EnableSubgraph:bool ForceQuantizeNoInputCheck:bool MatMulConstBOnly:bool "
        "WeightSymmetric:bool activation_symmetric:bool append_first_op_types_to_quantize_list:bool data_config:data "
        "extra.Sigmoid.nnapi:bool extra_options:object nodes_to_exclude:list nodes_to_quantize:list "
        "op_types_to_exclude:list op_types_to_quantize:list optimize_model:bool per_channel:bool precision:str "
        "quant_mode:str quant_preprocess:bool reduce_range:bool weight_symmetric:bool weight_type:str"
    ),
    "OnnxFloatToFloat16": (
        "+external data_config:data disable_shape_infer:bool keep_io_types:bool|list max_finite_val:float "
        "min_positive_val:float node_block_list:list node_include_list:list op_block_list:list op_include_list:list "
        "use_symbolic_shape_infer:bool"
    ),
    "OnnxHqqQuantization": (
        "+external accuracy_level:int|str axis:int block_size:int nodes_to_exclude:list nodes_to_include:list"
    ),
    "OnnxIODataTypeConverter": "+external name_pattern:str source_dtype:int target_dtype:int",
    "OnnxIOFloat16ToFloat32": "+external name_pattern:str",
    "OnnxKQuantQuantization": (
        "+external accuracy_level:int|str bits:int block_size:int customized_weight_config:object nodes_to_exclude:list"
    ),
    "OnnxMatMul4Quantizer": (
        "+external +loader accuracy_level:int|str algorithm:str block_size:int data_config:data is_symmetric:bool "
        "nodes_to_exclude:list nodes_to_include:list op_types_to_quantize:list quant_axes:object "
        "weight_only_quant_configs:object"
    ),
    "OnnxModelOptimizer": "+external data_config:data",
    "OnnxOpVersionConversion": "+external target_opset:int",
    "OnnxPeepholeOptimizer": (
        "+external cast_chain_elimination:bool fix_com_microsoft_opset:bool fuse_reshape_operations:bool "
        "onnxoptimizer_optimize:bool onnxscript_optimize:bool"
    ),
    "OnnxQuantization": (
        "+external +loader activation_symmetric:bool activation_type:str ActivationSymmetric:bool "
        "append_first_op_types_to_quantize_list:bool calibrate_method:str calibration_providers:list data_config:data "
        "EnableSubgraph:bool extra.Sigmoid.nnapi:bool extra_options:object ForceQuantizeNoInputCheck:bool "
        "MatMulConstBOnly:bool min_real_range:float nodes_to_exclude:list nodes_to_quantize:list "
        "op_types_to_exclude:list op_types_to_quantize:list optimize_model:bool per_channel:bool precision:str "
        "prepare_qdq_config:bool prepare_qnn_config:bool qnn_extra_options:object quant_format:str quant_mode:str "
        "quant_preprocess:bool reduce_range:bool tensor_quant_overrides:object use_external_data_format:bool "
        "weight_symmetric:bool weight_type:str WeightSymmetric:bool"
    ),
    "OnnxQuantizationPreprocess": "+external skip_onnx_shape:bool skip_optimization:bool skip_symbolic_shape:bool",
    "OnnxScriptFusion": "+external",
    "OnnxStaticQuantization": (
        "+external +loader activation_symmetric:bool activation_type:str ActivationSymmetric:bool "
        "append_first_op_types_to_quantize_list:bool calibrate_method:str calibration_providers:list data_config:data "
        "EnableSubgraph:bool extra.Sigmoid.nnapi:bool extra_options:object ForceQuantizeNoInputCheck:bool "
        "MatMulConstBOnly:bool min_real_range:float nodes_to_exclude:list nodes_to_quantize:list "
        "op_types_to_exclude:list op_types_to_quantize:list optimize_model:bool per_channel:bool precision:str "
        "prepare_qdq_config:bool prepare_qnn_config:bool qnn_extra_options:object quant_format:str quant_mode:str "
        "quant_preprocess:bool reduce_range:bool tensor_quant_overrides:object use_external_data_format:bool "
        "weight_symmetric:bool weight_type:str WeightSymmetric:bool"
    ),
    "OpenVINOConversion": (
        "compress_to_fp16:bool data_config:data example_input_func:str extra_config:object extra_configs:object "
        "input:list|str input_shape:list input_shapes:list|str model_name:str output_model:str static:bool"
    ),
    "OpenVINOEncapsulation": (
        "genai_config_override:object keep_ov_dynamic_dims:bool opset_imports:list ov_version:str reuse_cache:bool "
        "target_device:str"
    ),
    "OpenVINOIoUpdate": "extra_configs:object input_names:list input_shapes:list reuse_cache:bool static:bool",
    "OpenVINOOptimumConversion": "components:list device:str extra_args:object ov_quant_config:object",
    "OpenVINOQuantization": (
        "+loader algorithms:list data_config:data drop_type:str engine_config:object extra_configs:list "
        "ignored_scope:list|str ignored_scope_type:list|str max_drop:float metric_func:str model_type:str preset:str "
        "reuse_cache:bool target_device:str transform_fn:str validation_func:str"
    ),
    "OpenVINOQuantizationWithAccuracy": (
        "+loader data_config:data drop_type:str extra_configs:list ignored_scope:list|str ignored_scope_type:list|str "
        "max_drop:float model_type:str preset:str reuse_cache:bool target_device:str transform_fn:str "
        "validation_func:str"
    ),
    "OpenVINOWeightCompression": (
        "compress_config:object data_config:data extra_args:object ignored_scope:list|str ignored_scope_type:list|str "
        "reuse_cache:bool target_device:str transform_fn:str"
    ),
    "OptimumConversion": (
        "+external components:list data_config:data device:str extra_args:object fp16:bool target_opset:int"
    ),
    "OptimumMerging": "+external data_config:data execution_provider:str strict:bool",
    "OrtMixedPrecision": "+external atol:float data_config:data op_block_list:list",
    "OrtPerfTuning": (
        "+loader cpu_cores:int data_config:data device:str enable_cuda_graph:bool enable_profiling:bool "
        "execution_mode_list:int|list|str extra_session_config:object force_evaluate_other_eps:bool input_names:list "
        "input_shapes:list input_types:list inter_thread_num_list:list intra_thread_num_list:list io_bind:bool "
        "opt_level_list:list providers_list:list trt_fp16_enable:bool"
    ),
    "OrtSessionParamsTuning": (
        "cpu_cores:int data_config:data device:str enable_cuda_graph:bool enable_profiling:bool "
        "execution_mode_list:int|list|str extra_session_config:object force_evaluate_other_eps:bool "
        "inter_thread_num_list:int intra_thread_num_list:int io_bind:bool opt_level_list:int "
        "provider_options_list:object providers_list:list|str "
        "trt_fp16_enable:bool"
    ),
    "OrtTransformersOptimization": (
        "+external data_config:data float16:bool force_fp16_inputs:object force_fp32_nodes:list force_fp32_ops:list "
        "hidden_size:int input_int32:bool keep_io_types:bool model_type:str num_heads:int num_key_value_heads:int "
        "only_onnxruntime:bool opt_level:any optimization_options:object target_provider:str "
        "use_external_data_format:bool use_gpu:bool use_gqa:bool"
    ),
    "PyTorchTensorParallel": "class_name:str parallel_jobs:int world_size:int",
    "QairtEncapsulation": (
        "backend_extensions_overrides:object engine_config_overrides:object genie_overrides:object log_level:str "
        "opset_imports:list run_checker:bool"
    ),
    "QairtGenAIBuilder": (
        "backend:str cache_dir:str extended_udma:bool hvx_threads:int log_level:str multi_graph:bool native_kv:bool "
        "num_splits:int sequence_lengths:list soc_details:str vtcm_size_in_mb:int"
    ),
    "QairtMHA2SHA": "mha2sha_kwargs:object",
    "QairtPipelinePass": "cache_dir:str log_level:str recipe:str",
    "QairtPreparation": "cache_dir:str script_config:object script_path:str",
    "QLoRA": (
        "allow_tf32:bool alpha:float bias:str compute_dtype:str device_map:str double_quant:bool "
        "ephemeral_gpu_offload:bool eval_data_config:data eval_dataset_size:float lora_alpha:float lora_dropout:float "
        "lora_r:int modules_to_save:any ortmodule_onnx_opset_version:int quant_type:str r:int save_quant_config:bool "
        "target_modules:list torch_dtype:str train_data_config:data training_args:object use_ort_trainer:bool"
    ),
    "QNNContextBinaryGenerator": "backend:str binary_file:str extra_args:str use_olive_env:bool",
    "QNNConversion": "extra_args:str input_dim:list out_node:list use_olive_env:bool",
    "QNNModelLibGenerator": "lib_name:str lib_targets:str use_olive_env:bool",
    "QNNPreprocess": (
        "+external fuse_layernorm:bool inputs_to_make_channel_last:list outputs_to_make_channel_last:list"
    ),
    "QuantizationAwareTraining": (
        "checkpoint_path:str data_config:data do_validate:bool gpus:int input_shapes:list input_types:list "
        "logger:bool|list|str modules_to_fuse:list num_epochs:int num_steps:int pl_extra_args:object "
        "ptl_data_module:str ptl_module:str qconfig_func:str seed:int train_batch_size:int train_data_config:data "
        "train_data_dir:str train_dataloader_func:str training_loop_func:str val_data_config:data val_data_dir:str"
    ),
    "QuarkQuantization": (
        "+external algo_config:list attention_dtype:str batch_size:int custom_mode:str data_config:data data_type:str "
        "dataset:str exclude:list|object exclude_layers:list export_weight_format:str extra_options:object "
        "global_config:object kv_cache_dtype:str kv_cache_post_rope:bool layer_quant_scheme:list "
        "layer_type_config:list|object min_kv_scale:float model_export:list|str num_calib_data:int pack_method:str "
        "quant_algo:list|str quant_config:object quant_format:str quant_mode:str quant_scheme:str seq_len:int "
        "specific_layer_config:list|object trust_remote_code:bool"
    ),
    "QuarkQuantizationVitisAI": (
        "+external algo_config:list attention_dtype:str batch_size:int custom_mode:str data_config:data data_type:str "
        "dataset:str exclude:list|object exclude_layers:list export_weight_format:str extra_options:object "
        "global_config:object kv_cache_dtype:str kv_cache_post_rope:bool layer_quant_scheme:list "
        "layer_type_config:list|object min_kv_scale:float model_export:list|str num_calib_data:int pack_method:str "
        "quant_algo:list|str quant_config:object quant_format:str quant_mode:str quant_scheme:str seq_len:int "
        "specific_layer_config:list|object trust_remote_code:bool"
    ),
    "QuaRot": (
        "a_asym:bool a_bits:int a_clip_ratio:float a_groupsize:int calibration_batch_size:int "
        "calibration_data_config:data calibration_nsamples:int gptq_damping:float gptq_opt_scales:bool "
        "input_model_dtype:str k_bits:int k_clip_ratio:float k_groupsize:int rotate:bool rotate_mode:str "
        "rotation_seed:int s_bits:int seed:int v_bits:int v_clip_ratio:float v_groupsize:int w_asym:bool w_bits:int "
        "w_gptq:bool w_groupsize:int w_rtn:bool"
    ),
    "Rtn": "bits:int|str embeds:bool group_size:int lm_head:bool overrides:object sym:bool",
    "RyzenGenerateModelLLM": (
        "cpu_only:bool extra_options:object mem_optimize:bool mode:str model_name:str output_model_name:str "
        "packed_const:bool recipe:str"
    ),
    "SDLoRA": (
        "alpha:float class_data_dir:str class_prompt:str dreambooth:bool instance_prompt:str lora_dropout:float "
        "merge_lora:bool model_variant:str num_class_images:int prior_loss_weight:float r:int target_modules:list "
        "train_data_config:data training_args:object with_prior_preservation:bool"
    ),
    "SelectiveMixedPrecision": (
        "algorithm:str bits:int|str group_size:int high_bits:int|str high_group_size:int high_sym:bool "
        "keep_tied_word_embeddings:bool kld_memory_mode:str ratio:float sym:bool"
    ),
    "SliceGPT": (
        "calibration_batch_size:int calibration_data_config:data calibration_max_seqlen:int calibration_nsamples:int "
        "final_orientation:str round_interval:int seed:int sparsity:float varied_seqlen:bool"
    ),
    "SNPEConversion": (
        "data_config:data extra_args:str input_layouts:list input_names:list input_shapes:list input_types:list "
        "output_names:list output_shapes:list"
    ),
    "SNPEQuantization": (
        "+loader data_config:data enable_htp:bool extra_args:str htp_socs:list use_enhanced_quantizer:bool"
    ),
    "SNPEtoONNXConversion": "+external data_config:data target_device:str target_opset:int",
    "SparseGPT": (
        "blocksize:int compute_device:str data_config:data device:str layer_name_filter:list|str max_layer:int "
        "min_layer:int percdamp:float sparsity:float|list"
    ),
    "SpinQuant": "a_bits:int a_per_token:bool a_symmetric:bool rotate_mode:str seed:int training_args:object",
    "SplitModel": "+external split_assignments:object|str",
    "StaticLLM": "batch_size:int context_length:int group_session_options:object",
    "TorchTRTConversion": "data_config:data float16:bool layer_name_filter:list|str max_layer:int min_layer:int",
    "TrtMatMulToConvTransform": "+external",
    "VitisAIAddMetaData": "activation_type:str config_meta_data_keys:list quant_type:str weight_type:str",
    "VitisAIQuantization": (
        "+external +loader ActivationSymmetric:bool AddQDQPairToWeight:bool WeightSymmetric:bool activation_type:str "
        "calibrate_method:str data_config:data enable_dpu:bool extra_options:object input_nodes:list "
        "need_layer_fusing:bool nodes_to_exclude:list nodes_to_quantize:list op_types_to_quantize:list "
        "optimize_model:bool output_nodes:list per_channel:bool precision:str quant_format:str quant_mode:str "
        "quant_preprocess:bool use_external_data_format:bool weight_type:str"
    ),
    "VitisGenerateModelLLM": (
        "cpu_only:bool extra_options:object mem_optimize:bool mode:str model_name:str output_model_name:str "
        "packed_const:bool recipe:str"
    ),
    "VitisGenerateModelSD": "model_type:str resolutions:list",
}
"""Kinds: ``bool``, ``int``, ``float``, ``str``, ``list``, ``object``, ``data`` (the name of a data config, or one in
place), ``any``."""
