# The controllers, as Helm releases: one `apply` brings up everything that cluster/kuberay needs.

locals {
  system_instance_type = "m7i.large"
  system_selector      = { "vadv.dev/pool" = "system" }
  # What each controller requests per pod; tests/cluster/test_sizes.py adds them up.
  requests = {
    karpenter = { cpu = "500m", memory = "512Mi" }
    kuberay   = { cpu = "100m", memory = "512Mi" }
    kueue     = { cpu = "250m", memory = "512Mi" }
  }
}

provider "helm" {
  kubernetes = {
    host                   = module.eks.cluster_endpoint
    cluster_ca_certificate = base64decode(module.eks.cluster_certificate_authority_data)
    exec = {
      api_version = "client.authentication.k8s.io/v1beta1"
      command     = "aws"
      args        = ["eks", "get-token", "--region", var.region, "--cluster-name", module.eks.cluster_name]
    }
  }
}

# Karpenter's roles, and the queue through which AWS announces that it reclaims a spot machine.
module "karpenter" {
  source  = "terraform-aws-modules/eks/aws//modules/karpenter"
  version = "~> 21.0"

  cluster_name                  = module.eks.cluster_name
  node_iam_role_name            = "${var.name}-node" # cluster/kuberay/setup/nodes.yaml names it
  node_iam_role_use_name_prefix = false
}

resource "helm_release" "karpenter" {
  name       = "karpenter"
  namespace  = "kube-system"
  repository = "oci://public.ecr.aws/karpenter"
  chart      = "karpenter"
  version    = "1.11.1" # Kubernetes 1.29 to 1.35
  values = [yamlencode({
    settings = {
      clusterName       = module.eks.cluster_name
      clusterEndpoint   = module.eks.cluster_endpoint
      interruptionQueue = module.karpenter.queue_name
    }
    replicas     = 2
    nodeSelector = local.system_selector
    controller   = { resources = { requests = local.requests.karpenter } }
  })]
  depends_on = [module.eks, module.karpenter]
}

# Spot on a new account needs this role; `terraform import` it if it exists.
resource "aws_iam_service_linked_role" "spot" {
  count            = var.create_spot_role ? 1 : 0
  aws_service_name = "spot.amazonaws.com"
}

resource "helm_release" "kuberay" {
  name             = "kuberay-operator"
  namespace        = "kuberay-operator" # cluster/kuberay/setup/network-policy.yaml lets it through
  create_namespace = true
  repository       = "https://ray-project.github.io/kuberay-helm/"
  chart            = "kuberay-operator"
  version          = "1.7.1"
  values = [yamlencode({
    nodeSelector = local.system_selector
    resources    = { requests = local.requests.kuberay, limits = local.requests.kuberay }
  })]
  depends_on = [module.eks]
}

resource "helm_release" "kueue" {
  name             = "kueue"
  namespace        = "kueue-system"
  create_namespace = true
  repository       = "oci://registry.k8s.io/kueue/charts"
  chart            = "kueue"
  version          = "0.18.1" # its default configuration manages RayJobs with a queue name
  values = [yamlencode({
    controllerManager = {
      nodeSelector = local.system_selector
      manager      = { resources = { requests = local.requests.kueue } }
    }
  })]
  depends_on = [module.eks, helm_release.kuberay]
}

# Kubernetes sees GPUs through it. It runs on nodes labelled nvidia.com/gpu.present, as Karpenter's GPU nodes are.
resource "helm_release" "nvidia_device_plugin" {
  name       = "nvidia-device-plugin"
  namespace  = "kube-system"
  repository = "https://nvidia.github.io/k8s-device-plugin"
  chart      = "nvidia-device-plugin"
  version    = "0.17.1"
  depends_on = [module.eks]
}
